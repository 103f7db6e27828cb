"""A name that a terminal would obey and that markup would change, and how it is shown."""

HOSTILE = "a\x1b]0;pwned\x07b\x9b31mc\x08\u202ed\r[red]e[/red]:smile:\udcff"
SHOWN = r"a\x1b]0;pwned\x07b\x9b31mc\x08\u202ed\x0d[red]e[/red]:smile:\udcff"
