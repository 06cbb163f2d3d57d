// The keyboard: one table of what keys do everywhere, shown by `?`.
import { dialog } from "../state";
import { DialogFrame } from "./Dialog";

export const KEYS: readonly (readonly [string, string])[] = [
  ["/", "Filter"],
  ["j  k", "Next, previous row or event"],
  ["o  Enter", "Open the row"],
  ["s", "Start an execution"],
  ["p", "Pause"],
  ["r", "Resume"],
  ["c", "Cancel"],
  ["f", "Follow the latest event; fire the schedule"],
  ["a  d", "Add a schedule, delete one"],
  ["1 2 3 4 5", "Document, diagram, timeline, events, value"],
  ["Escape", "Leave what is selected"],
  ["Ctrl K", "Commands"],
  ["?", "This list"],
];

export const openKeys = (): void => {
  dialog.value = () => (
    <DialogFrame title="Keyboard">
      <dl class="keys">
        {KEYS.map(([keys, text]) => (
          <div key={keys}>
            <dt>
              {keys.split(/\s+(?!K)/).map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{text}</dd>
          </div>
        ))}
      </dl>
    </DialogFrame>
  );
};

/** Has single keys do something while nothing is being typed. Gives what undoes it. */
export function onKeys(table: Record<string, (event: KeyboardEvent) => void>): () => void {
  const listen = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.value) return;
    const target = event.target as HTMLElement;
    if (target.closest("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (event.key === "Enter" && target.closest("a, button, summary")) return;
    const act = table[event.key];
    if (!act) return;
    event.preventDefault();
    act(event);
  };
  window.addEventListener("keydown", listen);
  return () => window.removeEventListener("keydown", listen);
}
