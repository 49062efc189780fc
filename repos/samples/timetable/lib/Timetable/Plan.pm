package Timetable::Plan;

use strict;
use warnings;
use Exporter 'import';
use Timetable::Span qw(duration span_text);
use Timetable::Week;

our @EXPORT_OK = qw(human_minutes pad shorten day_lines summary parse_line);

# "45 min", "2 h" or "1 h 30 min".
sub human_minutes {
    my ($minutes) = @_;
    my $hours = int($minutes / 60);
    my $rest = $minutes % 60;
    return "$rest min" if $hours == 0;
    return "$hours h" if $rest == 0;
    return "$hours h $rest min";
}

sub pad {
    my ($text, $width) = @_;
    my $missing = $width - length $text;
    return $missing > 0 ? $text . ' ' x $missing : $text;
}

# A text cut to a width, with a tilde in place of what is gone.
sub shorten {
    my ($text, $width) = @_;
    return $text if length $text <= $width;
    return substr($text, 0, $width - 1) . '~';
}

sub day_lines {
    my ($week, $day, $width) = @_;
    my @lines;
    for my $booking ($week->agenda($day)) {
        my $title = pad(shorten($booking->{title}, $width), $width);
        push @lines, span_text($booking->{span}) . " $title " . duration($booking->{span});
    }
    return @lines ? @lines : ('nothing');
}

sub summary {
    my ($week, @days) = @_;
    my @parts;
    for my $day (@days) {
        my $busy = $week->busy_minutes($day);
        next if $busy == 0;
        push @parts, "$day: " . human_minutes($busy);
    }
    return join '; ', @parts;
}

# (day, from, to, title) of "Mon 9:00-10:30 Standup"; () when a line is none.
sub parse_line {
    my ($line) = @_;
    $line =~ s/#.*//;
    return () unless $line =~ /^\s*(\w+)\s+([\d:]+)-([\d:]+)\s+(.*\S)\s*$/;
    my ($day, $from, $to, $title) = ($1, $2, $3, $4);
    return () if Timetable::Week::day_number($day) == 0;
    return (ucfirst lc $day, $from, $to, $title);
}

1;
