"""Source text in many languages: our own small programs, with names and numbers dealt by dice.

A template's `<name>` is replaced; everything else stands as it is, so that braces need no escapes.
"""

from __future__ import annotations

from suites.corpus.compose.chance import Chance

_ONE = ("parcel", "member", "sensor", "invoice", "reading", "ticket", "station", "recipe", "vessel")
_MANY = {
    "parcel": "parcels", "member": "members", "sensor": "sensors", "invoice": "invoices",
    "reading": "readings", "ticket": "tickets", "station": "stations", "recipe": "recipes",
    "vessel": "vessels",
}  # fmt: skip
_FIELDS = ("weight", "height", "price", "depth", "score", "length", "age", "delay")
_VERBS = ("load", "check", "merge", "count", "export", "split")

PYTHON = '''\
@dataclass(frozen=True)
class <One>:
    name: str
    <field>: float


def heaviest(<many>: list[<One>], limit: int = <n>) -> list[<One>]:
    """The first `limit` by <field>, largest first."""
    ranked = sorted(<many>, key=lambda <one>: -<one>.<field>)
    return ranked[:limit]
'''
PYTHON_TEST = """\
def test_<verb>_refuses_an_empty_list():
    with pytest.raises(ValueError, match="no <many>"):
        <verb>([])


@pytest.mark.parametrize("count", [1, <n>, <m>])
def test_<verb>_keeps_every_<one>(count):
    <many> = [make_<one>(index) for index in range(count)]
    assert len(<verb>(<many>)) == count
"""
C = """\
struct <one> { int id; double <field>; };

static double mean_<field>(const struct <one> *<many>, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += <many>[i].<field>;
    return n ? sum / (double)n : 0.0;
}
"""
RUST = """\
#[derive(Debug, Clone)]
pub struct <One> {
    pub id: u32,
    pub <field>: f64,
}

impl <One> {
    pub fn <verb>(&self, factor: f64) -> Option<f64> {
        if self.<field> > <n>.0 { Some(self.<field> * factor) } else { None }
    }
}
"""
GO = """\
func (s *Store) <Verb>(ctx context.Context, id int) (*<One>, error) {
	row := s.db.QueryRowContext(ctx, "SELECT <field> FROM <many> WHERE id = ?", id)
	var found <One>
	if err := row.Scan(&found.<Field>); err != nil {
		return nil, fmt.Errorf("<verb> <one> %d: %w", id, err)
	}
	return &found, nil
}
"""
JAVASCRIPT = """\
export async function <verb><One>s(url, { retries = <n> } = {}) {
  for (let attempt = 0; attempt <= retries; attempt += 1) {
    const response = await fetch(`${url}/<many>?page=${attempt}`);
    if (response.ok) return response.json();
  }
  throw new Error(`no <many> after ${retries} attempts`);
}
"""
TYPESCRIPT = """\
interface <One> { id: number; <field>?: number }

const by<Field> = (<many>: <One>[]): Map<number, <One>[]> => {
  const groups = new Map<number, <One>[]>();
  for (const <one> of <many>) {
    const key = Math.floor((<one>.<field> ?? 0) / <n>);
    groups.set(key, [...(groups.get(key) ?? []), <one>]);
  }
  return groups;
};
"""
JAVA = """\
public final class <One>Queue {
    private final Deque<<One>> <many> = new ArrayDeque<>();

    public synchronized boolean offer(<One> <one>) {
        if (<many>.size() >= <m>) {
            return false;
        }
        <many>.addLast(<one>);
        return true;
    }
}
"""
SQL = """\
CREATE TABLE <many> (
    id INTEGER PRIMARY KEY,
    <field> REAL NOT NULL CHECK (<field> >= 0),
    seen_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);

SELECT date(seen_at) AS day, avg(<field>) AS mean_<field>
FROM <many>
WHERE <field> BETWEEN <n> AND <m>
GROUP BY day
HAVING count(*) > <n>
ORDER BY day DESC;
"""
SHELL = """\
#!/bin/sh
set -eu
dir="${1:-/var/spool/<many>}"
find "$dir" -name '*.<one>' -mtime +<n> -print | while read -r file; do
    size=$(wc -c < "$file")
    [ "$size" -gt <m> ] && gzip -9 "$file"
done
echo "<verb>: done in $dir" >&2
"""
YAML = """\
service: <one>-<verb>
replicas: <n>
resources:
  limits: {cpu: "<n>", memory: <m>Mi}
environment:
  - name: <ONE>_LIMIT
    value: "<m>"
  - name: LOG_LEVEL
    value: info
healthcheck:
  path: /<many>/health
  interval_s: <n>
"""
JSON = """\
{
  "<many>": [
    {"id": <n>, "name": "<one>-a", "<field>": <m>.5, "tags": ["new", "<verb>"]},
    {"id": <m>, "name": "<one>-b", "<field>": null, "tags": []}
  ],
  "next": "/<many>?after=<m>",
  "total": <m>
}
"""
HTML = """\
<table id="<many>">
  <thead><tr><th>No.</th><th>Name</th><th><Field></th></tr></thead>
  <tbody>
    <tr><td><n></td><td><One> A</td><td class="num"><m></td></tr>
    <tr><td><m></td><td><One> B</td><td class="num"><n></td></tr>
  </tbody>
</table>
"""
HASKELL = """\
data <One> = <One> { name :: String, <field> :: Double } deriving (Eq, Show)

<verb> :: Double -> [<One>] -> ([<One>], [<One>])
<verb> limit = foldr step ([], [])
  where
    step x (low, high)
      | <field> x < limit = (x : low, high)
      | otherwise = (low, x : high)
"""
LATEX = """\
\\begin{equation}
  \\bar{x}_{<n>} = \\frac{1}{<m>} \\sum_{i=1}^{<m>} w_i x_i,
  \\qquad \\sigma^2 = \\frac{1}{<m> - 1} \\sum_{i} (x_i - \\bar{x})^2
\\end{equation}
where $x_i$ is the <field> of <one> $i$ and $w_i$ its weight.
"""
DIFF = """\
--- a/src/<many>.py
+++ b/src/<many>.py
@@ -<n>,4 +<n>,5 @@ def <verb>(<many>):
     total = 0
     for <one> in <many>:
-        total += <one>.<field>
+        if <one>.<field> is not None:
+            total += <one>.<field>
     return total
"""
LOG = """\
07:<n2>:03 INFO  <verb>: 3 workers started, limit <m>
07:<n2>:04 INFO  <one> 17 accepted, <field>=<n>.25
07:<n2>:09 WARN  <one> 18 delayed, <field>=<m>.00 exceeds <n>
07:<n2>:12 ERROR <one> 18 refused after 3 attempts: timeout
07:<n2>:12 INFO  <verb>: 2 <many> written, 1 refused
"""
TEMPLATES = (
    PYTHON, C, RUST, GO, JAVASCRIPT, SQL, PYTHON_TEST, TYPESCRIPT, JAVA, SHELL, YAML, JSON, HTML,
    HASKELL, LATEX, DIFF, LOG,
)  # fmt: skip


def filled(template: str, chance: Chance) -> str:
    """The template with one thing, one of its properties, one verb and two numbers."""
    one, field, verb = chance.pick(_ONE), chance.pick(_FIELDS), chance.pick(_VERBS)
    low = chance.number(2, 12)
    words = {
        "one": one, "One": one.capitalize(), "ONE": one.upper(), "many": _MANY[one],
        "field": field, "Field": field.capitalize(), "verb": verb, "Verb": verb.capitalize(),
        "n": str(low), "m": str(low * chance.number(4, 40)), "n2": f"{chance.number(0, 59):02d}",
    }  # fmt: skip
    for name, word in words.items():
        template = template.replace(f"<{name}>", word)
    return template


def code(seed: int) -> str:
    """One of the languages in turn."""
    return filled(TEMPLATES[seed % len(TEMPLATES)], Chance(seed))
