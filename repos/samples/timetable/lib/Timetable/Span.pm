package Timetable::Span;

use strict;
use warnings;
use Exporter 'import';
use Timetable::Clock qw(parse_time format_time);

our @EXPORT_OK = qw(new_span duration contains overlaps intersect merge span_text);

=head1 NAME

Timetable::Span - half-open spans of time: the start belongs to it, the end does not

=cut

sub new_span {
    my ($from, $to) = @_;
    my ($start, $end) = (parse_time($from), parse_time($to));
    die "not a time: $from\n" unless defined $start;
    die "not a time: $to\n" unless defined $end;
    die "ends before it starts\n" if $end <= $start;
    return { start => $start, end => $end };
}

sub duration {
    my ($span) = @_;
    return $span->{end} - $span->{start};
}

sub contains {
    my ($span, $time) = @_;
    return $time >= $span->{start} && $time < $span->{end} ? 1 : 0;
}

sub overlaps {
    my ($one, $other) = @_;
    return $one->{start} < $other->{end} && $other->{start} < $one->{end} ? 1 : 0;
}

# What two spans share; undef when they share nothing.
sub intersect {
    my ($one, $other) = @_;
    return undef unless overlaps($one, $other);
    my $start = $one->{start} > $other->{start} ? $one->{start} : $other->{start};
    my $end = $one->{end} < $other->{end} ? $one->{end} : $other->{end};
    return { start => $start, end => $end };
}

# The fewest spans that cover the same time, in order; spans that touch become one.
sub merge {
    my @sorted = sort { $a->{start} <=> $b->{start} } @_;
    my @merged;
    for my $span (@sorted) {
        my $last = $merged[-1];
        if ($last && $span->{start} <= $last->{end}) {
            $last->{end} = $span->{end} if $span->{end} > $last->{end};
        }
        else {
            push @merged, { %$span };
        }
    }
    return @merged;
}

sub span_text {
    my ($span) = @_;
    return format_time($span->{start}) . '-' . format_time($span->{end});
}

1;
