"""The whole model: which rank for which layer, and the factors that go with it."""
