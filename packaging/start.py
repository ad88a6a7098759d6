"""What the self-contained smfix runs first."""

from smfix.__main__ import main

main()
