"""Plans on a GPU: one Triton kernel forwards and one backwards per circuit, the state kept on chip."""
