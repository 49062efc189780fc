package Timetable::Week;

use strict;
use warnings;
use Timetable::Span qw(duration overlaps merge);

my @DAYS = qw(Mon Tue Wed Thu Fri Sat Sun);

sub new {
    my ($class) = @_;
    my %bookings = map { $_ => [] } @DAYS;
    return bless { bookings => \%bookings }, $class;
}

sub day_number {
    my ($name) = @_;
    for my $number (0 .. $#DAYS) {
        return $number + 1 if lc $DAYS[$number] eq lc $name;
    }
    return 0;
}

# Book a span of a day. Dies when the day is unknown or the time is taken.
sub book {
    my ($self, $day, $span, $title) = @_;
    my $list = $self->{bookings}{$day} or die "no such day: $day\n";
    for my $other (@$list) {
        die "taken by $other->{title}\n" if overlaps($other->{span}, $span);
    }
    push @$list, { span => $span, title => $title };
    return scalar @$list;
}

sub cancel {
    my ($self, $day, $title) = @_;
    my $list = $self->{bookings}{$day};
    my @kept = grep { $_->{title} ne $title } @$list;
    my $removed = @$list - @kept;
    $self->{bookings}{$day} = \@kept;
    return $removed;
}

# The bookings of a day, earliest first.
sub agenda {
    my ($self, $day) = @_;
    return sort { $a->{span}{start} <=> $b->{span}{start} } @{ $self->{bookings}{$day} };
}

sub busy_minutes {
    my ($self, $day) = @_;
    my $total = 0;
    for my $span (merge(map { $_->{span} } @{ $self->{bookings}{$day} })) {
        $total += duration($span);
    }
    return $total;
}

# Gaps of at least so many minutes between two times of a day.
sub free_spans {
    my ($self, $day, $window, $minutes) = @_;
    my $from = $window->{start};
    my @free;
    for my $span (merge(map { $_->{span} } $self->agenda($day))) {
        push @free, { start => $from, end => $span->{start} } if $span->{start} - $from >= $minutes;
        $from = $span->{end} if $span->{end} > $from;
    }
    push @free, { start => $from, end => $window->{end} } if $window->{end} - $from >= $minutes;
    return @free;
}

sub busiest_day {
    my ($self) = @_;
    my ($best, $most) = ('', 0);
    for my $day (@DAYS) {
        my $busy = $self->busy_minutes($day);
        ($best, $most) = ($day, $busy) if $busy > $most;
    }
    return $best;
}

1;
