use strict;
use warnings;
use Test::More;
use Timetable::Span qw(new_span merge span_text);

sub merged {
    return join ' ', map { span_text($_) } merge(map { new_span(split /-/) } @_);
}

is(merged('9:00-10:00', '11:00-12:00'), '09:00-10:00 11:00-12:00', 'apart they stay');
is(merged('9:00-10:00', '9:30-11:00'), '09:00-11:00', 'overlapping ones join');
is(merged('9:00-10:00', '10:00-11:00'), '09:00-11:00', 'touching ones join');
is(merged('9:00-12:00', '10:00-11:00'), '09:00-12:00', 'the longer end wins');
is(merged('13:00-14:00', '9:00-10:00'), '09:00-10:00 13:00-14:00', 'they come out in order');
is(merged(), '', 'nothing gives nothing');

my $span = new_span('9:00', '10:00');
my @result = merge($span, new_span('9:30', '11:00'));
is($span->{end}, 600, 'what is merged is not changed');
is(scalar @result, 1, 'two became one');

done_testing;
