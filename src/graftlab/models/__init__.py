"""The frozen base behind one small protocol."""
