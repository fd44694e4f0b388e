"""The store: named models, immutable numbered versions, movable aliases."""
