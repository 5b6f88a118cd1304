"""What a job's document refers to."""
