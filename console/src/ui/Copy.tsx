// Copies a text, and says so.
import { say } from "../state";

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied ${what}.`);
  } catch {
    say("The browser does not let this page copy: select the text instead.", true);
  }
}

export function CopyButton({ text, what, label = "Copy" }: { text: string; what: string; label?: string }) {
  return (
    <button type="button" class="quiet small" title={`Copy ${what}`} aria-label={`Copy ${what}`} onClick={() => void copy(text, what)}>
      {label}
    </button>
  );
}
