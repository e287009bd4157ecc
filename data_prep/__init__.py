"""Ground floor: images on disk -> WebDataset shards and a manifest, in a folder or on s3://."""
