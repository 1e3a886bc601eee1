"""Studies of many training runs: the commands `granet-plasticity` and `granet-compare`.

A study is a grid of cells in a directory. `grid` keeps what cells came to, `jobs` runs those that
are still to be done, and each study says what its cells are and what to make of their results.
Where cells are run is up to `pools`, what a process does with one to `worker`, and `session` is
what keeps them from doing it twice.
"""
