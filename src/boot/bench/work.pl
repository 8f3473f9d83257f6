# Fixed amounts of work in Perl: perl work.pl NAME [FILE].
use strict;
use warnings;

my %work = (
    # Words of a file counted, by regular expression and hash.
    words => sub {
        open my $file, '<', $_[0] or die "$_[0]: $!";
        my %count;
        while (<$file>) {
            last if $. > 25_000;
            $count{ lc $1 }++ while /\b([A-Za-z_]\w+)\b/g;
            s/(\w+)\.(\w+)\(/$2($1, /g;
        }
        my @common = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
        die "few words" unless @common > 1000;
    },
    sort => sub {
        my $value = 1;
        my @numbers = map { $value = ($value * 1103515245 + 12345) & 0x7fffffff } 1 .. 60000;
        my @sorted = sort { $a <=> $b } @numbers;
        my @texts = sort map { sprintf '%08x', $_ } @numbers;
        for my $i (1 .. $#sorted) {
            die "unsorted" if $sorted[ $i - 1 ] > $sorted[$i] || $texts[ $i - 1 ] gt $texts[$i];
        }
    },
);

my ($name, @arguments) = @ARGV;
$work{$name}->(@arguments);
