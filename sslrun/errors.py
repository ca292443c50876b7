"""The error that is the user's to mend; apart from the contracts, so that what needs no torch does not import it."""


class UserError(ValueError):
    """A mistake the user can mend: one sentence naming the key, the value and what would work."""
