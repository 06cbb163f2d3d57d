// The same from a terminal, below what a button does.
import { useState } from "preact/hooks";
import type { Same } from "../terminal";
import { CopyButton } from "./Copy";

export function Terminal({ same, open = false }: { same: Same[]; open?: boolean }) {
  const [chosen, setChosen] = useState(0);
  const shown = same[chosen] ?? same[0];
  if (!shown) return null;
  return (
    <details class="terminal" open={open}>
      <summary>The same from a terminal</summary>
      <div class="terminal-bar">
        <div role="group" aria-label="Program" class="segments">
          {same.map((each, at) => (
            <button key={each.label} type="button" aria-pressed={at === chosen} onClick={() => setChosen(at)}>
              {each.label}
            </button>
          ))}
        </div>
        <CopyButton text={shown.text} what="the command" />
      </div>
      <pre tabIndex={0} aria-label={`${shown.label} command`}>{shown.text}</pre>
    </details>
  );
}
