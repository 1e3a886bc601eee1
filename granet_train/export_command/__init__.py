"""What is behind the command `granet-export`: flags, models and data from disk, files to write."""
