// A dialog that does one thing: its fields, the button that does it, what refuses it, the same from a terminal.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { closeDialog } from "../state";
import type { Same } from "../terminal";
import { DialogFrame } from "./Dialog";
import { Terminal } from "./Terminal";

interface Properties {
  title: string;
  /** What the button says. */
  button: string;
  /** Whether it cannot be undone. */
  isBad?: boolean;
  /** Whether what is filled in cannot be sent. */
  isWrong?: boolean;
  /** Why it cannot be done yet; empty: it can. */
  fault?: string;
  same: Same[];
  /** Does it. What it raises is shown, and the dialog stays. */
  act: () => Promise<unknown>;
  children: ComponentChildren;
}

export function ActionDialog({ title, button, isBad = false, isWrong = false, fault = "", same, act, children }: Properties) {
  const [refusal, setRefusal] = useState("");
  const [busy, setBusy] = useState(false);
  const send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    // Enter submits a form whose button cannot be pressed.
    if (busy || isWrong) return;
    setBusy(true);
    try {
      await act();
      closeDialog();
    } catch (error) {
      setRefusal(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <DialogFrame title={title}>
      <form onSubmit={(event) => void send(event)}>
        {children}
        {refusal || fault ? <p class="refusal" role="alert">{refusal || fault}</p> : null}
        <footer>
          <button type="button" onClick={closeDialog}>Leave it</button>
          <button type="submit" class={isBad ? "bad" : "primary"} disabled={busy || isWrong}>{button}</button>
        </footer>
      </form>
      <Terminal same={same} />
    </DialogFrame>
  );
}
