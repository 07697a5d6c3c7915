"""R-Drop for distillctl: two passes of the student, which differ in what dropout dropped, must agree."""
