use strict;
use warnings;
use Test::More;
use Timetable::Span qw(new_span span_text);
use Timetable::Week;

my $week = Timetable::Week->new;
my $office = new_span('8:00', '16:00');

sub gaps {
    my ($day, $minutes) = @_;
    return join ' ', map { span_text($_) } $week->free_spans($day, $office, $minutes);
}

is(gaps('Wed', 60), '08:00-16:00', 'a whole day is free');

$week->book('Wed', new_span('8:00', '9:00'), 'mail');
$week->book('Wed', new_span('10:00', '11:30'), 'talk');
$week->book('Wed', new_span('15:30', '16:00'), 'tidy up');

is(gaps('Wed', 60), '09:00-10:00 11:30-15:30', 'gaps of an hour');
is(gaps('Wed', 61), '11:30-15:30', 'a longer one');
is(gaps('Wed', 300), '', 'none is that long');

my @removed = map { $week->cancel('Wed', 'talk') } 1, 2;
is($removed[0], 1, 'one booking is cancelled');
is($removed[1], 0, 'only once');
is(gaps('Wed', 60), '09:00-15:30', 'its time is free again');
is($week->busy_minutes('Wed'), 90, 'the rest stays');

done_testing;
