"""Floor 0: space — datum, local plane, grid, geo-fence.  Imports nothing of ours."""
