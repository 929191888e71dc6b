"""What the chapters need to have something to compress: data, small nets, training, seeds."""
