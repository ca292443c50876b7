"""The error that is the user's to mend; apart from the contracts, so that what needs no torch does not import it."""


class UserError(ValueError):
    """A mistake the user can mend: one sentence naming the key, the value and what would work."""


class Unfit(UserError):
    """A method and data that do not go together whatever the settings; a study of many leaves that pair out."""
