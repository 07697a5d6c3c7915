"""Every classifier of timm as a student or a teacher."""
