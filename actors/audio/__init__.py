"""From an object in the store to samples: any recording, decoded a block at a time, whatever its length."""
