#!/usr/bin/perl
# A stand-in for `ollama`: its server, and those of its commands that ollama/serve.sh and docs/local-model.md use, with the words and exit
# codes that it has. A model is an empty file. Its name may say what goes wrong: `unknown…` is in no registry, `hanging…` is never pulled to
# its end, `large…` does not fit into memory; and with OLLAMA_MODEL=silent, the server never listens.
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
my $home = ($ENV{HOME} || '/root') . '/.ollama/models';
my $loaded = '/tmp/ollama-loaded';
my ($host, $port) = split /:/, ($ENV{OLLAMA_HOST} || '127.0.0.1:11434');

sub file { my $name = shift; $name .= ':latest' unless $name =~ /:/; $name =~ s{/}{%}g; "$home/$name" }
sub slurp { open my $in, '<', shift or return ''; local $/; <$in> // '' }
sub names { map { s{.*/}{}r =~ s{%}{/}gr } glob "$home/*" }
sub field { my ($body, $name) = @_; $body =~ /"$name"\s*:\s*"([^"]*)"/ ? $1 : '' }

# ------------------------------------------------------------------------------------------------------------------ the server

sub answer {
    my ($path, $body) = @_;
    my $name = field($body, 'model') || field($body, 'name');
    my $missing = [404, qq({"error":"model '$name' not found"})];
    return [200, '{"version":"0.0.0-stand-in"}'] if $path eq '/api/version';
    return [200, '{"models":[' . join(',', map { qq({"name":"$_"}) } names()) . ']}'] if $path eq '/api/tags';
    return [200, '{"models":[' . join(',', map { qq({"name":"$_"}) } split /\n/, slurp($loaded)) . ']}'] if $path eq '/api/ps';
    print "stand-in: $path $name\n";
    if ($path eq '/api/pull') {
        sleep 1 while $name =~ /^hanging/;
        return [200, qq({"status":"pulling manifest"}\n{"error":"pull model manifest: file does not exist"}\n)] if $name =~ /^unknown/;
    }
    if ($path eq '/api/pull' or $path eq '/api/create') {
        open my $out, '>', file($name) or die "$!";
        return [200, qq({"status":"pulling manifest"}\n{"status":"success"}\n)];
    }
    return $missing unless $name and -e file($name);
    return [200, '{"details":{"families":[]}}'] if $path eq '/api/show';
    if ($path eq '/api/generate') {
        return [500, '{"error":"model requires more system memory (8.0 GiB) than is available (1.0 GiB)"}'] if $name =~ /^large/;
        my ($alive) = $body =~ /"keep_alive"\s*:\s*(-?[0-9]+)/;
        print "stand-in: $name stays for ", $alive // $ENV{OLLAMA_KEEP_ALIVE} // '5m', ', prompt «', field($body, 'prompt'), "»\n";
        open my $out, '>', $loaded or die "$!";
        print $out "$name\n";
        return [200, qq({"model":"$name","response":"","done":true,"done_reason":"load"})];
    }
    return [404, '404 page not found'];
}

sub serve {
    $SIG{TERM} = $SIG{INT} = sub { print "stand-in: stopped\n"; exit 0 };
    sleep 1 while ($ENV{OLLAMA_MODEL} // '') eq 'silent';
    $SIG{CHLD} = 'IGNORE';
    system 'mkdir', '-p', $home;
    unlink $loaded;
    my $listener = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Listen => 16, ReuseAddr => 1) or die "Error: $!\n";
    while (1) {
        my $peer = $listener->accept or next;
        next if fork;
        my ($length, $path, $body) = (0, '', '');
        while (my $line = <$peer>) {
            $path = $1 if $line =~ m{^[A-Z]+ (\S+)};
            $length = $1 if $line =~ /^content-length:\s*([0-9]+)/i;
            last if $line =~ /^\r?\n/;
        }
        read $peer, $body, $length;
        my ($status, $text) = @{answer($path, $body)};
        print $peer "HTTP/1.1 $status -\r\nContent-Type: application/json\r\nContent-Length: ", length $text, "\r\nConnection: close\r\n\r\n$text";
        exit 0;
    }
}

# ---------------------------------------------------------------------------------------------------------------- the commands

sub fail { print STDERR "Error: @_\n"; exit 1 }

sub ask {
    my ($path, $body) = @_;
    my $server = IO::Socket::INET->new(PeerAddr => $host eq '0.0.0.0' ? '127.0.0.1' : $host, PeerPort => $port)
        or fail('could not connect to ollama app, is it running?');
    print $server 'POST ', $path, " HTTP/1.1\r\nContent-Length: ", length $body, "\r\n\r\n$body";
    my $text = join '', <$server>;
    my ($status) = $text =~ m{^HTTP/1.1 ([0-9]+)};
    $text =~ s/.*?\r\n\r\n//s;
    return ($status, $text);
}

sub must {
    my ($status, $text) = ask(@_);
    fail($1) if $text =~ /"error":"([^"]*)"/;
    return $text;
}

sub pull {
    my $name = shift;
    print STDERR "\e[?25l\e[2K\e[1Gpulling manifest \e[?25h" for 1 .. 20;
    must('/api/pull', qq({"model":"$name"}));
    print STDERR "\nsuccess\n";
}

my ($verb, @words) = @ARGV;
my ($alive, $from);
while (my ($at) = grep { $words[$_] =~ /^-/ } 0 .. $#words) {
    my ($word) = splice @words, $at, 1;
    if ($word =~ /^--keepalive=(.*)/) {
        my $time = $1;
        $time =~ /^-?[0-9.]+(?:ms|s|m|h)$/ or fail(qq(time: missing unit in duration "$time"));
        $alive = $time =~ /^-/ ? -1 : 300;
    } elsif ($word eq '-f') {
        $from = splice @words, $at, 1;
    } else {
        fail("unknown flag: $word");
    }
}
if ($verb eq 'serve') {
    serve();
} elsif ($verb eq 'list' or $verb eq 'ps') {
    my $text = must($verb eq 'ps' ? '/api/ps' : '/api/tags', '');
    print "NAME\n", map { "$_\n" } $text =~ /"name":"([^"]*)"/g;
} elsif ($verb eq 'show') {
    must('/api/show', qq({"model":"$words[0]"}));
} elsif ($verb eq 'pull') {
    pull($words[0]);
} elsif ($verb eq 'create') {
    -e $from or fail("no Modelfile or safetensors files found");
    must('/api/create', qq({"model":"$words[0]"}));
} elsif ($verb eq 'run') {
    my ($name, @prompts) = @words;
    # As the real one does: it pulls what is missing, and what is piped into it is a part of the prompt.
    my ($status) = ask('/api/show', qq({"model":"$name"}));
    pull($name) if $status == 404;
    unshift @prompts, join '', <STDIN> unless -t STDIN;
    my $keep = defined $alive ? qq(,"keep_alive":$alive) : '';
    must('/api/generate', qq({"model":"$name","prompt":"@prompts"$keep}));
} else {
    fail(qq(unknown command "$verb" for "ollama"));
}
