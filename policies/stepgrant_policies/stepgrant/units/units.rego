# METADATA
# title: Amounts that add up
# description: |
#   Engines calculate with fractions differently: 0.1 + 0.2 <= 0.3 is false in one and true in another. Whole numbers
#   are alike everywhere. So amounts are counted in whole millionths, as the broker counts meters, and read digit by
#   digit, without arithmetic on fractions.
# scope: package
package stepgrant.units

# METADATA
# title: Whole millionths
# description: |
#   The number rounded half up. What is more than nothing is never free: it is one millionth at least. Undefined for
#   what is no number, is negative, or is so large that its millionths are no exact number.
millionths(value) := whole + fraction + _up(seventh) if {
	is_number(value)
	value >= 0.00001
	value <= 9007199254
	text := json.marshal(value)
	regex.match(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`, text)

	# A whole number has no decimals, so it gets some.
	parts := split(concat("", [text, ".0"]), ".")
	decimals := concat("", [parts[1], "0000000"])
	six := substring(decimals, 0, 6)
	seventh := substring(decimals, 6, 1)
	whole := to_number(parts[0]) * 1000000

	# Led by a 1, because engines differ on what 000001 is.
	fraction := to_number(concat("", ["1", six])) - 1000000
}

# Below that, some engines write an exponent; there are only ten such results.
millionths(value) := 1 + count([limit | some limit in _halves; value >= limit]) if {
	is_number(value)
	value > 0
	value < 0.00001
}

millionths(value) := 0 if value == 0

_halves := [
	0.0000015, 0.0000025, 0.0000035, 0.0000045, 0.0000055,
	0.0000065, 0.0000075, 0.0000085, 0.0000095,
]

_up(digit) := 1 if digit in {"5", "6", "7", "8", "9"}

_up(digit) := 0 if digit in {"0", "1", "2", "3", "4"}
