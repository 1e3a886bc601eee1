"""Methods against each other, as in Table 2 of the paper: `granet-compare`."""
