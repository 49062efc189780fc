package Timetable::Clock;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(parse_time format_time add_minutes minutes_until round_to is_morning);

my $DAY = 24 * 60;

# Minutes since midnight of a text such as "9:05" or "17:30"; undef when it is no time.
sub parse_time {
    my ($text) = @_;
    return undef unless $text =~ /^(\d{1,2}):(\d\d)$/;
    my ($hours, $minutes) = ($1, $2);
    return undef if $hours > 23 || $minutes > 59;
    return $hours * 60 + $minutes;
}

# The text of a time of day, with two digits for the hour.
sub format_time {
    my ($time) = @_;
    my $hours = int($time / 60);
    my $minutes = $time % 60;
    return sprintf('%02d:%02d', $hours, $minutes);
}

# A time so many minutes later, past midnight beginning at zero again.
sub add_minutes {
    my ($time, $minutes) = @_;
    return ($time + $minutes) % $DAY;
}

# How long to wait from one time of day to the next time it is another.
sub minutes_until {
    my ($from, $to) = @_;
    my $wait = $to - $from;
    $wait += $DAY if $wait < 0;
    return $wait;
}

# The nearest multiple of a step; halves go up.
sub round_to {
    my ($time, $step) = @_;
    my $rest = $time % $step;
    if ($rest * 2 >= $step) {
        return $time + $step - $rest;
    }
    return $time - $rest;
}

sub is_morning {
    my ($time) = @_;
    return $time < 12 * 60 ? 1 : 0;
}

1;
