"use strict";
// The verdict on a row at a threshold. As in squad_lit.predict, a score above the threshold is called anomalous.
function verdict(row, threshold) {
  const flagged = row.score > threshold;
  if (row.label === null) return flagged ? "flagged" : "passed";
  if (row.label) return flagged ? "found" : "miss";
  return flagged ? "false alarm" : "passed";
}

// The number of rows per verdict, and ratios, which are null without images.
function count(rows, threshold) {
  const of = { found: 0, miss: 0, "false alarm": 0, passed: 0, flagged: 0 };
  for (const row of rows) of[verdict(row, threshold)] += 1;
  const ratio = (part, whole) => whole ? part / whole : null;
  return {
    ...of,
    flagged: of.flagged + of.found + of["false alarm"],
    images: rows.length,
    precision: ratio(of.found, of.found + of["false alarm"]),
    recall: ratio(of.found, of.found + of.miss),
    false_alarm_rate: ratio(of["false alarm"], of["false alarm"] + of.passed),
  };
}

// The rows to show, in order. They have the category, the verdict, and all words in name, category or kind.
function choose(rows, { threshold, filter = "all", category = "", search = "", sort = "highest" }) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = row => {
    const text = `${row.name} ${row.category} ${row.kind}`.toLowerCase();
    if ((category && row.category !== category) || !words.every(word => text.includes(word))) return false;
    if (filter === "all") return true;
    if (filter === "flagged" || filter === "normal") return (row.score > threshold) === (filter === "flagged");
    return verdict(row, threshold) === filter;
  };
  const order = {
    highest: (a, b) => b.score - a.score,
    lowest: (a, b) => a.score - b.score,
    name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
    kind: (a, b) => a.kind.localeCompare(b.kind, "en"),
    category: (a, b) => a.category.localeCompare(b.category, "en"),
  };
  return rows.filter(fits).sort((a, b) => order[sort](a, b) || b.score - a.score);
}
