package units_test

import data.stepgrant.units

test_whole_numbers_and_fractions if {
	expected := {
		"0": 0, "1": 1000000, "80": 80000000, "0.3": 300000, "0.30000000000000004": 300000, "1.5": 1500000,
		"19.99": 19990000, "0.1": 100000, "123456.000001": 123456000001, "9007199254": 9007199254000000,
	}
	every text, micro in expected {
		units.millionths(json.unmarshal(text)) == micro
	}
}

test_half_a_millionth_counts_as_one if {
	units.millionths(1.0000005) == 1000001
	units.millionths(1.00000049) == 1000000
	units.millionths(0.9999999) == 1000000
}

test_the_smallest_amounts_are_never_free if {
	units.millionths(0.000000000001) == 1
	units.millionths(0.000001) == 1
	units.millionths(0.0000014) == 1
	units.millionths(0.0000015) == 2
	units.millionths(0.0000095) == 10
	units.millionths(0.0000099) == 10
	units.millionths(0.00001) == 10
}

test_what_is_no_exact_number_of_millionths_is_undefined if {
	not units.millionths(-1)
	not units.millionths(9007199255)
	not units.millionths("1")
	not units.millionths(null)
	not units.millionths(true)
}
