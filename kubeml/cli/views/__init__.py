"""What the command line draws: values in, text and tables out."""
