use strict;
use warnings;
use Test::More;
use Timetable::Span qw(new_span span_text);
use Timetable::Week;

my $week = Timetable::Week->new;

is(Timetable::Week::day_number('Mon'), 1, 'the first day');
is(Timetable::Week::day_number('sun'), 7, 'the last day, in small letters');
is(Timetable::Week::day_number('Foo'), 0, 'no day at all');

my @numbers = (
    $week->book('Mon', new_span('9:00', '10:00'), 'standup'),
    $week->book('Mon', new_span('13:00', '14:30'), 'review'),
    $week->book('Mon', new_span('10:00', '10:30'), 'coffee'),
);
is($numbers[0], 1, 'the first booking');
is($numbers[1], 2, 'the second booking');
is($numbers[2], 3, 'one that touches');

my $done = eval { $week->book('Mon', new_span('9:30', '11:00'), 'clash'); 1 };
is($done, undef, 'what is taken cannot be booked');
is($@, "taken by standup\n", 'and it says by whom');
is(eval { $week->book('Fooday', new_span('9:00', '10:00'), 'x'); 1 }, undef, 'an unknown day');

is(join(' ', map { $_->{title} } $week->agenda('Mon')), 'standup coffee review', 'in order');
is($week->busy_minutes('Mon'), 180, 'three hours are busy');
is($week->busy_minutes('Tue'), 0, 'an empty day');
is($week->busiest_day, 'Mon', 'the busiest day');

done_testing;
