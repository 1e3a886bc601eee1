"""The study of Section 3 of the paper: `granet-plasticity`."""
