"""Where the jobs of a sweep run, one choice per file."""
