use strict;
use warnings;
use Test::More;
use Timetable::Clock qw(parse_time format_time add_minutes minutes_until round_to is_morning);

is(parse_time('9:05'), 545, 'one digit for the hour');
is(parse_time('17:30'), 1050, 'two digits for the hour');
is(parse_time('00:00'), 0, 'midnight is zero');
is(parse_time('23:59'), 1439, 'the last minute of a day');
is(parse_time('24:00'), undef, 'there is no hour 24');
is(parse_time('12:60'), undef, 'there is no minute 60');
is(parse_time('noon'), undef, 'words are no times');

is(format_time(545), '09:05', 'hours get two digits');
is(format_time(0), '00:00', 'midnight as text');
for my $text ('00:01', '10:10', '23:59') {
    is(format_time(parse_time($text)), $text, "there and back: $text");
}

is(add_minutes(600, 45), 645, 'later on the same day');
is(add_minutes(1430, 20), 10, 'past midnight');
is(minutes_until(600, 660), 60, 'wait for a later time');
is(minutes_until(1380, 60), 120, 'wait over midnight');
is(minutes_until(300, 300), 0, 'no wait for now');

subtest 'rounding' => sub {
    is(round_to(607, 15), 600, 'down');
    is(round_to(608, 15), 615, 'up');
    is(round_to(610, 20), 620, 'halves go up');
    is(round_to(600, 15), 600, 'already there');
};

ok(is_morning(719), 'before noon it is morning');
ok(!is_morning(720), 'noon is no morning');

done_testing;
