"""What a face is and where it comes from: rendered faces, data sets on disk, batches, photographs."""
