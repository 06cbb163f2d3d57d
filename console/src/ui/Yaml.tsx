// One line of a document, coloured: keys, texts, numbers, comments, expressions.
import type { JSX } from "preact";

const PART =
  /(#.*$)|(\$\{[^}]*\}?)|("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')|([A-Za-z_][\w.-]*)(?=\s*:(?:\s|$))|(?<![\w.-])(-?\d+(?:\.\d+)?)(?![\w.-])/g;
const CLASSES = ["y-comment", "y-expression", "y-string", "y-key", "y-number"];

export function Line({ text }: { text: string }) {
  const parts: (string | JSX.Element)[] = [];
  let at = 0;
  for (const found of text.matchAll(PART)) {
    const which = found.slice(1).findIndex((each) => each !== undefined);
    // A comment begins after a space, or the line.
    if (which === 0 && found.index > 0 && !/\s/.test(text[found.index - 1] ?? "")) continue;
    if (found.index > at) parts.push(text.slice(at, found.index));
    // A text that holds an expression is one.
    const kind = which === 2 && found[0].includes("${") ? 1 : which;
    parts.push(<span class={CLASSES[kind] ?? ""}>{found[0]}</span>);
    at = found.index + found[0].length;
  }
  if (at < text.length) parts.push(text.slice(at));
  return <code>{parts}</code>;
}
