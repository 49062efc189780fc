"""The consistency validation of a bug artifact: three-valued checks, cheapest first."""
