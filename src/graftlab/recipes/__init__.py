"""What `prepare` does to records on their way from raw files to a data set, step by step."""
