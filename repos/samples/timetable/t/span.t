use strict;
use warnings;
use Test::More;
use Timetable::Span qw(new_span duration contains overlaps intersect merge span_text);

my $lesson = new_span('9:00', '10:30');

is(duration($lesson), 90, 'ninety minutes');
is(span_text($lesson), '09:00-10:30', 'as text');
ok(contains($lesson, 540), 'the start belongs to it');
ok(!contains($lesson, 630), 'the end does not');
ok(contains($lesson, 600), 'so does the middle');
ok(!contains($lesson, 539), 'but not the minute before');

is(eval { new_span('10:00', '9:00'); 1 }, undef, 'ends before it starts');
is(eval { new_span('10:00', '10:00'); 1 }, undef, 'an empty span is refused');
is(eval { new_span('x', '10:00'); 1 }, undef, 'a start that is no time');

ok(overlaps($lesson, new_span('10:00', '11:00')), 'overlap at the end');
ok(overlaps($lesson, new_span('8:00', '12:00')), 'one inside the other');
ok(!overlaps($lesson, new_span('10:30', '11:00')), 'touching is no overlap');
ok(!overlaps(new_span('8:00', '9:00'), $lesson), 'touching at the start');

is_deeply(
    intersect($lesson, new_span('10:00', '11:00')),
    { start => 600, end => 630 },
    'the shared half hour',
);
is(intersect($lesson, new_span('12:00', '13:00')), undef, 'nothing is shared');

done_testing;
