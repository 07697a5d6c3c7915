"""Images with boxes, as COCO or YOLO label them, for distillctl."""
