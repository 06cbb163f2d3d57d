// The console: one page, whose address says what it shows.
import { render } from "preact";
import { useEffect, useLayoutEffect } from "preact/hooks";
import "./theme.css";
import "./app.css";
import { listenToAddress, place } from "./router";
import { begin, dialog, info, needsLogin, nextTheme, note, theme } from "./state";
import { DialogHost } from "./ui/Dialog";
import { onKeys, openKeys } from "./ui/Keys";
import { openPalette } from "./ui/Palette";
import { Execution } from "./pages/Execution";
import { Executions } from "./pages/Executions";
import { Login } from "./pages/Login";
import { Schedules } from "./pages/Schedules";
import { NewWorkflow, WorkflowPage, Workflows } from "./pages/Workflows";

function View() {
  const route = place.value.route;
  switch (route.page) {
    case "executions":
      return <Executions />;
    case "execution":
      return <Execution key={route.id} id={route.id} sequence={route.sequence} />;
    case "workflows":
      return <Workflows />;
    case "workflow":
      return <WorkflowPage namespace={route.namespace} name={route.name} />;
    case "schedules":
      return <Schedules />;
    case "new-workflow":
      return <NewWorkflow />;
    default:
      return (
        <main class="list-page">
          <p class="empty">There is nothing at this address. <a href="/">Executions</a></p>
        </main>
      );
  }
}

function Bar() {
  const { page } = place.value.route;
  const isWorkflows = page === "workflows" || page === "workflow" || page === "new-workflow";
  return (
    <header class="bar">
      <a class="mark" href="/" aria-label="fastrunner">
        <svg viewBox="0 0 32 32" width="20" height="20" aria-hidden="true">
          <rect width="32" height="32" rx="7" />
          <path d="M8 11h9M8 16h13M8 21h6" />
          <circle cx="23.5" cy="11" r="2.5" />
        </svg>
        <span>fastrunner</span>
      </a>
      <nav aria-label="Main">
        <a href="/" aria-current={page === "executions" || page === "execution" ? "page" : undefined}>Executions</a>
        <a href="/workflows" aria-current={isWorkflows ? "page" : undefined}>Workflows</a>
        <a href="/schedules" aria-current={page === "schedules" ? "page" : undefined}>Schedules</a>
      </nav>
      <span class="grow" />
      <button type="button" class="quiet palette-button" onClick={openPalette}><span>Commands</span> <kbd>Ctrl K</kbd></button>
      <button type="button" class="quiet" title="Keyboard" aria-label="Keyboard" onClick={openKeys}>?</button>
      <button type="button" class="quiet" title={`Colours: ${theme.value}`} aria-label={`Colours: ${theme.value}`} onClick={nextTheme}>
        {theme.value === "dark" ? "☾" : theme.value === "light" ? "☀" : "◐"}
      </button>
      {info.value ? <span class="soft num version">{info.value.version}</span> : null}
    </header>
  );
}

function App() {
  // Whoever sees something may press keys: they are heard before it is painted.
  useLayoutEffect(() => {
    const listen = (event: KeyboardEvent): void => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        if (!dialog.value) openPalette();
      }
    };
    window.addEventListener("keydown", listen);
    return onKeys({ "?": openKeys });
  }, []);
  const { route } = place.value;
  useEffect(() => {
    const name = route.page === "execution" ? route.id : route.page === "workflow" ? route.name : route.page;
    document.title = `${name.replace("-", " ")} · fastrunner`;
  }, [route.page === "execution" ? route.id : route.page]);
  return (
    <>
      <Bar />
      {needsLogin.value ? <Login /> : <View />}
      <DialogHost />
      <div class="notes" role="status" aria-live="polite">
        {note.value ? <p class={note.value.isBad ? "note bad" : "note"}>{note.value.text}</p> : null}
      </div>
    </>
  );
}

begin();
listenToAddress();
const root = document.getElementById("app");
if (root) render(<App />, root);
