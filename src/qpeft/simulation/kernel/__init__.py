"""The compiled CPU path: one interpreter of plans, tokens along SIMD lanes. Needs numba; imported only when used."""
