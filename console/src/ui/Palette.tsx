// The command palette: everything there is to do here, found by typing.
import { useMemo, useRef, useState } from "preact/hooks";
import { executionPath, go } from "../router";
import { STATUSES, signOut } from "../api";
import { closeDialog, dialog, info, may, needsLogin, nextTheme, sayError, viewActions, type Action } from "../state";
import { openKeys } from "./Keys";

function leave(): void {
  signOut().then(() => { needsLogin.value = true; }, sayError);
}

function everywhere(): Action[] {
  return [
    { name: "Go to executions", run: () => go("/") },
    { name: "Go to workflows", run: () => go("/workflows") },
    { name: "Go to schedules", run: () => go("/schedules") },
    ...(may("admin") ? [{ name: "Create a workflow", run: () => go("/workflows/new") }] : []),
    ...STATUSES.map((status) => ({ name: `Show ${status} executions`, run: () => go(`/?status=${status}`) })),
    { name: "Change colours: system, light, dark", run: nextTheme },
    ...(info.value?.caller ? [{ name: `Sign out ${info.value.caller}`, run: leave }] : []),
    { name: "Show the keyboard", hint: "?", run: openKeys },
  ];
}

function Palette() {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const found = useMemo(() => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...viewActions.value, ...everywhere()].filter((each) =>
      words.every((word) => each.name.toLowerCase().includes(word)),
    );
    const id = text.trim();
    if (id) all.push({ name: `Open execution ${id}`, run: () => go(executionPath(id)) });
    return all;
  }, [text]);
  const chosen = Math.min(at, found.length - 1);
  const run = (action: Action | undefined): void => {
    if (!action) return;
    closeDialog();
    // After the dialog has given the focus back.
    setTimeout(action.run, 0);
  };
  const move = (step: number): void => {
    const next = (chosen + step + found.length) % found.length;
    setAt(next);
    list.current?.children[next]?.scrollIntoView({ block: "nearest" });
  };
  return (
    <div class="palette">
      <h2 id="dialog-title" class="hidden">
        Commands
      </h2>
      <input
        type="text"
        role="combobox"
        aria-expanded="true"
        aria-controls="palette-list"
        aria-activedescendant={`palette-${chosen}`}
        aria-label="Command, or the id of an execution"
        placeholder="Type a command, or the id of an execution"
        value={text}
        autoFocus
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") move(1);
          else if (event.key === "ArrowUp") move(-1);
          else if (event.key === "Enter") run(found[chosen]);
          else return;
          event.preventDefault();
        }}
      />
      <ul id="palette-list" role="listbox" aria-label="Commands" ref={list} tabIndex={0}>
        {found.map((action, index) => (
          <li
            key={action.name}
            id={`palette-${index}`}
            role="option"
            aria-selected={index === chosen}
            onClick={() => run(action)}
            onMouseMove={() => setAt(index)}
          >
            <span>{action.name}</span>
            {action.hint ? <kbd>{action.hint}</kbd> : null}
          </li>
        ))}
      </ul>
    </div>
  );
}

export const openPalette = (): void => {
  dialog.value = () => <Palette />;
};
