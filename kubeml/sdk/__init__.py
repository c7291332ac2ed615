"""What users write their functions against."""
