# Definitions behind jaq's own; the main program and its modules see these.

# As jq: all paths are found first, and the last goes first, so that none of them means another element then.
def delpaths($paths): reduce ($paths | unique | reverse[]) as $path (.; getpath($path) |= empty);
def del(f): delpaths([path(f)]);

# Natives of jaq's that are slow for large orders, or recurse.
def _order(f): if . > -10000 and . < 10000 then f else error("order out of range") end;
def _jn(n; x): jn(n; x);
def jn(n; x): n as $n | x as $x | $n | _order(_jn($n; $x));
def _yn(n; x): yn(n; x);
def yn(n; x): n as $n | x as $x | $n | _order(_yn($n; $x));

# Dates: formats of bounded length, and errors that quote no more than eleven characters.
def _format(f): if utf8bytelength > 256 then error("date format too long") else f end;
def _strftime($f): strftime($f);
def strftime($f): . as $t | $f | _format($t | _strftime($f));
def _strflocaltime($f): strflocaltime($f);
def strflocaltime($f): . as $t | $f | _format($t | _strflocaltime($f));
def _strptime($f): strptime($f);
def strptime($f):
  . as $t | $f | _format($t | try _strptime($f) catch error("\($t | _brief) does not match the date format"));
def _fromdateiso8601: fromdateiso8601;
def fromdateiso8601: . as $t | try _fromdateiso8601 catch error("\($t | _brief) is not a date");
def fromdate: fromdateiso8601;

# jaq holds all matches at once; here one at a time.
def sub(re; f; flags): reduce _parts(re; flags) as $p (""; . + if $p | isstring then $p else $p | f end);
def sub(re; f): sub(re; f; "");
def gsub(re; f; flags): sub(re; f; "g" + flags);
def gsub(re; f): sub(re; f; "g");

# A group that took no part in the match is null, and may be the first.
def _scan(re; flags): matches(re; flags)[] | [.[].string] | if length > 1 then .[1:] else .[0] end;
def scan(re; flags): _scan(re; "g" + flags);
def scan(re): scan(re; null);

# "08" and "+5" are numbers too; jaq reads JSON.
def tonumber: _tonumber;

# Errors that quote no more than eleven characters.
def _implode: implode;
def implode: . as $t | try _implode catch error("\($t | _brief) cannot be imploded");

# As jaq's, without the matches themselves.
def test(re; flags): _test(re; flags);
def test(re): _test(re; null);
