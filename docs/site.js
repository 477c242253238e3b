// What site.css cannot know of a page, for narrow screens.
document.addEventListener("DOMContentLoaded", () => {
  // A row of a table becomes a list of its cells, so each cell says which column it is of.
  for (const table of document.querySelectorAll("article table")) {
    const columns = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => { cell.dataset.column = columns[index] ?? ""; });
    }
  }
  // A long line of code goes on in the next line, further right than it began.
  for (const line of document.querySelectorAll('article pre > code > span[id^="line-"]')) {
    const indent = line.textContent.search(/[^ ]/);
    line.style.setProperty("--indent", `${Math.max(indent, 0) + 2}ch`);
  }
  // Browsers end a line after a hyphen, which cuts `-m` and `--json`: each word becomes an element that stays whole.
  for (const code of document.querySelectorAll("article :not(pre) > code")) {
    if (code.children.length || !code.textContent.includes("-")) continue;
    const words = code.textContent.split(/( +)/).map((text) => {
      if (!text.includes("-")) return text;
      const word = document.createElement("span");
      word.className = "word";
      word.textContent = text;
      return word;
    });
    code.replaceChildren(...words);
  }
});
