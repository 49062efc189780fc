use strict;
use warnings;
use Test::More;
use Timetable::Plan qw(human_minutes pad shorten day_lines summary parse_line);
use Timetable::Span qw(new_span);
use Timetable::Week;

is(human_minutes(45), '45 min', 'minutes alone');
is(human_minutes(120), '2 h', 'full hours');
is(human_minutes(90), '1 h 30 min', 'hours and minutes');
is(human_minutes(0), '0 min', 'no time at all');

is(pad('ab', 4), 'ab  ', 'padded to a width');
is(pad('abcd', 3), 'abcd', 'what is longer stays');
is(shorten('retrospective', 6), 'retro~', 'cut with a tilde');
is(shorten('review', 6), 'review', 'what fits stays');

my $week = Timetable::Week->new;
$week->book('Thu', new_span('14:00', '15:00'), 'review');
$week->book('Thu', new_span('9:00', '9:15'), 'standup');
$week->book('Fri', new_span('9:00', '11:00'), 'planning');

is_deeply(
    [day_lines($week, 'Thu', 6)],
    ['09:00-09:15 stand~ 15', '14:00-15:00 review 60'],
    'lines of a day',
);
is_deeply([day_lines($week, 'Sat', 6)], ['nothing'], 'lines of an empty day');
is(summary($week, qw(Thu Fri Sat)), 'Thu: 1 h 15 min; Fri: 2 h', 'a summary skips empty days');

is_deeply(
    [parse_line('Mon 9:00-10:30 Stand up  # daily')],
    ['Mon', '9:00', '10:30', 'Stand up'],
    'a line of a plan',
);
is_deeply([parse_line('# nothing')], [], 'a comment is no booking');
is_deeply([parse_line('Xyz 9:00-10:30 Stand up')], [], 'a line without a day');

done_testing;
